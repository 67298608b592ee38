// The one dialog: asks for some fields, or for a yes.

import { busy, byId, make, showProblem } from "./dom.js";

const dialog = byId("dialog");
const form = dialog.querySelector("form");
const problem = form.querySelector(".problem");
let work = null;

byId("dialog-cancel").addEventListener("click", () => dialog.close());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(form));
  busy(byId("dialog-ok"), problem, async () => {
    await work(fields);
    dialog.close();
  });
});

/** Open it. `fields` are `{name, label, hint, value}`; `run` gets what was entered, and it closes afterwards. */
export function ask({ title, text = "", fields = [], ok, danger = false, run }) {
  byId("dialog-title").textContent = title;
  byId("dialog-text").textContent = text;
  byId("dialog-fields").replaceChildren(
    ...fields.map(({ name, label, hint, value = "" }) =>
      make("label", {}, label, make("input", { name, value, autocomplete: "off", maxlength: "100" }), make("small", {}, hint ?? "")),
    ),
  );
  const button = byId("dialog-ok");
  button.textContent = ok;
  button.classList.toggle("danger", danger);
  showProblem(problem, null);
  work = run;
  dialog.showModal();
}
