/** Attributes that the library's markup lacks: names of fields and buttons, and code that scrolls by keyboard. */
function complete(place: HTMLElement): void {
  const each = (selector: string, attribute: string, value: (element: HTMLElement) => string | undefined) => {
    for (const element of place.querySelectorAll<HTMLElement>(`${selector}:not([${attribute}])`)) {
      const given = value(element);
      if (given) {
        element.setAttribute(attribute, given);
      }
    }
  };
  each(
    "[data-param-name] :is(input, select, textarea):not(label *)",
    "aria-label",
    (field) => field.closest<HTMLElement>("[data-param-name]")?.dataset.paramName,
  );
  each(".body-param__text", "aria-label", () => "Request body");
  each(".json-schema-2020-12-accordion", "aria-label", (button) =>
    button.textContent?.trim() ? undefined : "Schema",
  );
  each("pre.microlight", "tabindex", () => "0");
}

/** Completes what the library renders below an element. Returns what ends that. */
export function keepComplete(place: HTMLElement): () => void {
  const observer = new MutationObserver(() => complete(place));
  observer.observe(place, { childList: true, subtree: true });
  return () => observer.disconnect();
}
