// Runs before drf-yasg's script starts Swagger UI.

"use strict";

// Without the "Explore" bar, which loads documents from other hosts: the page's policy blocks them.
swaggerUiConfig.layout = "BaseLayout";
swaggerUiConfig.filter = false;

function pathOf(element) {
  return element.closest(".opblock").querySelector("[data-path]").dataset.path;
}

/** Return a name for the button that expands a nested model without a title. */
function nameOfModel(button) {
  const row = button.closest(".property-row");
  return row ? row.cells[0].firstChild.textContent : "Items";
}

annotate([
  [".information-container", () => ({ role: "region", "aria-label": "About the API" })],
  ["h3.opblock-tag, .models h4", () => ({ "aria-level": "2" })],
  [".opblock h4", () => ({ "aria-level": "3" })],
  [".opblock h5", () => ({ "aria-level": "4" })],
  ["[data-param-name] select", (select) => ({ "aria-label": select.closest("[data-param-name]").dataset.paramName })],
  [".responses-table", (table) => ({ "aria-label": `Documented responses of ${pathOf(table)}` })],
  [".live-responses-table", (table) => ({ "aria-label": `Response of ${pathOf(table)}` })],
  [".model-box-control:not(:has(.model-title))", (button) => ({ "aria-label": nameOfModel(button) })],
  [".opblock pre", () => ({ tabindex: "0" })],
]);
