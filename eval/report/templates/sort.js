for (const table of document.querySelectorAll("table.sortable")) {
  table.classList.add("ready");
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const text = row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
    return text === "" || isNaN(text) ? text : Number(text);
  };
  heads.forEach((head, i) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    [...body.rows].sort((a, b) => order(value(a, i), value(b, i)) * (up ? 1 : -1)).forEach((row) => body.append(row));
  }));
}
