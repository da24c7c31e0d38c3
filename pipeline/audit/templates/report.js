"use strict";
const forEach = (selector, act, inside = document) => inside.querySelectorAll(selector).forEach(act);
const root = document.documentElement;
root.classList.add("scripted");
root.style.setProperty("--head", JSON.stringify(document.title));
forEach("[hidden].controls, [hidden].filter", (part) => { part.hidden = false; });

const showMethod = (name) => forEach("[data-method]", (cell) => { cell.hidden = name !== "" && cell.dataset.method !== name; });
forEach("input[name=method]", (radio) => radio.addEventListener("change", () => showMethod(radio.value)));

const threshold = document.getElementById("threshold");
threshold.addEventListener("input", () => {
  const steps = Number(threshold.max) + 1, from = Number(threshold.value);
  const values = Array.from({ length: steps }, (_, i) => (i < from ? 0 : 1)).join(" ");
  forEach(".cut", (mask) => mask.setAttribute("tableValues", values));
  document.getElementById("threshold-shown").textContent = (from / steps).toFixed(2);
});
const opacity = document.getElementById("opacity");
opacity.addEventListener("input", () => root.style.setProperty("--heat", opacity.value / 100));

const sortValue = (row, column) => {
  const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim().replace(/ %$/, "");
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? -1
  : typeof b === "number" ? 1 : a.localeCompare(b));
const sort = (table, column, heading) => {
  const descending = heading.getAttribute("aria-sort") !== "descending";
  const rows = Array.from(table.tBodies[0].rows).map((row) => [sortValue(row, column), row]);
  rows.sort(([a], [b]) => (descending ? compare(b, a) : compare(a, b)));
  forEach("th[aria-sort]", (other) => other.removeAttribute("aria-sort"), table);
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
};
forEach("table.sortable", (table) => forEach("thead th", (heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sort(table, column, heading));
}, table));

forEach("input[data-filters]", (field) => field.addEventListener("input", () => {
  const words = field.value.toLowerCase();
  forEach(`#${field.dataset.filters} tbody tr`, (row) => { row.hidden = !row.cells[0].textContent.toLowerCase().includes(words); });
}));

window.addEventListener("beforeprint", () => forEach("details:not([open])", (part) => { part.open = true; part.dataset.closed = ""; }));
window.addEventListener("afterprint", () => forEach("details[data-closed]", (part) => { part.open = false; delete part.dataset.closed; }));
