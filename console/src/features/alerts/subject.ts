import { id } from "../../api/format";

/** Returns what an alert is about, and the page that shows it. */
export function subjectOf(subject = "") {
  const [, , kind] = subject.split("/");
  switch (subject.startsWith("namespaces/") ? (kind ?? "") : undefined) {
    case "agents":
    case "workers":
      return { page: "/agents", name: id(subject) } as const;
    case "":
      return { page: "/costs", name: `namespace ${id(subject)}` } as const;
    default:
      return { page: "/system", name: id(subject) } as const;
  }
}
