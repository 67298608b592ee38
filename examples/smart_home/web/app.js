// The page: log in or sign up, then your homes.

import { login, logout, register, resume, whenSessionEnds } from "./api.js";
import { busy, byId, showProblem } from "./dom.js";
import { closeHomes, openHomes } from "./homes.js";

const form = byId("account-form");
const submit = form.querySelector("button");
let signingUp = false;

function showAccount(sentence) {
  closeHomes();
  byId("start").hidden = byId("who").hidden = byId("logout").hidden = true;
  byId("account").hidden = false;
  showProblem(byId("problem"), null);
  showProblem(form.querySelector(".problem"), sentence);
}

function chooseForm(toSignUp) {
  signingUp = toSignUp;
  byId("name-field").hidden = byId("password-hint").hidden = !toSignUp;
  byId("account-title").textContent = submit.textContent = toSignUp ? "Sign up" : "Log in";
  byId("switch-text").textContent = toSignUp ? "You have an account?" : "New here?";
  byId("switch-account").textContent = toSignUp ? "Log in" : "Sign up";
  form.elements.password.autocomplete = toSignUp ? "new-password" : "current-password";
  showProblem(form.querySelector(".problem"), null);
}

async function enter(user) {
  byId("start").hidden = byId("account").hidden = true;
  byId("who").textContent = user.name;
  byId("who").hidden = byId("logout").hidden = false;
  try {
    await openHomes();
  } catch (error) {
    showProblem(byId("problem"), error.message);
  }
}

byId("switch-account").addEventListener("click", () => chooseForm(!signingUp));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, email, password } = Object.fromEntries(new FormData(form));
  busy(submit, form.querySelector(".problem"), async () => {
    const user = await (signingUp ? register({ name, email, password }) : login({ email, password }));
    form.reset();
    await enter(user);
  });
});

byId("logout").addEventListener("click", async () => {
  await logout();
  showAccount();
});

whenSessionEnds(() => showAccount("Your session is over. Please log in again."));

try {
  const user = await resume();
  if (user) await enter(user);
  else showAccount();
} catch (error) {
  byId("start").hidden = true;
  showAccount(error.message);
}
