// Small helpers. Text always goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Make an element: `make("p", { class: "muted" }, "text", child)`. Functions become listeners. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Show a sentence in an element with role="alert", or hide it again. */
export function showProblem(element, sentence) {
  element.textContent = sentence ?? "";
  element.hidden = !sentence;
}

/** Run the work of a button or form: no second time meanwhile, and a fault as a sentence. */
export async function busy(button, problem, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  showProblem(problem, null);
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    showProblem(problem, error.message);
  } finally {
    button.removeAttribute("aria-busy");
    button.disabled = false;
  }
}
