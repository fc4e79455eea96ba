"use strict";
(() => {
  const table = document.getElementById("worklist-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const filter = document.getElementById("filter");
  const likely = document.getElementById("likely");
  const shown = document.getElementById("shown");
  const texts = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits = words.every(word => texts.get(row).includes(word)) &&
        (!likely.checked || row.classList.contains("likely"));
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} of ${rows.length} shown`;
  };

  const value = (row, column, isNumber) => {
    const text = row.cells[column].textContent.trim();
    return isNumber ? parseFloat(text.replace(/,/g, "")) : text.toLowerCase();
  };

  const sort = (heading, column) => {
    const isUp = heading.getAttribute("aria-sort") !== "ascending";
    const isNumber = heading.classList.contains("number");
    rows.sort((one, other) => {
      const a = value(one, column, isNumber), b = value(other, column, isNumber);
      return (a < b ? -1 : a > b ? 1 : 0) * (isUp ? 1 : -1);
    });
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
    body.append(...rows);
  };

  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(heading, column));
    heading.replaceChildren(button);
  });
  filter.addEventListener("input", show);
  likely.addEventListener("change", show);
  document.querySelector(".tools").hidden = false;
  show();
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
