"use strict";
// A heading sorts the rows of its table by its column, and then the other way round.
function sort(heading) {
  const body = heading.closest("table").tBodies[0], column = heading.cellIndex;
  const isText = column === 0, isDescending = heading.getAttribute("aria-sort") === "ascending";
  const value = (row) => isText ? row.cells[0].textContent : parseFloat(row.cells[column].textContent);
  const known = [...body.rows].filter((row) => isText || !isNaN(value(row)));
  const unknown = [...body.rows].filter((row) => !known.includes(row));
  known.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  if (isDescending) known.reverse();
  body.append(...known, ...unknown);
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
}
for (const heading of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
  heading.setAttribute("aria-sort", "none");
}
// Paper has no closed parts.
addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll("details")) element.open = true;
});
