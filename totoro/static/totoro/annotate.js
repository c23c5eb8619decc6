// What screen readers and keyboards need and the markup of Swagger UI and Redoc lacks.

"use strict";

/** Sets attributes on all elements that match, now and whenever the page changes.
 *  rules: pairs of a selector and of a function from an element to its attributes. */
function annotate(rules) {
  function apply() {
    for (const [selector, attributesOf] of rules) {
      for (const element of document.querySelectorAll(selector)) {
        for (const [name, value] of Object.entries(attributesOf(element))) {
          if (element.getAttribute(name) !== value) {
            element.setAttribute(name, value);
          }
        }
      }
    }
  }

  new MutationObserver(apply).observe(document.body, { childList: true, subtree: true });
}
