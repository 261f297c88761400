import type { ReactNode } from "react";
import { Scroll } from "./Scroll";

interface Head {
  name: string;
  /** Without room for it, the column is left out. */
  isOptional?: boolean;
  /** Only for screen readers. */
  isHidden?: boolean;
}

/** Heading of a column that a narrow window leaves out; its cells have the class `optional`. */
export const optional = (name: string): Head => ({ name, isOptional: true });
/** Heading for screen readers only. */
export const hidden = (name: string): Head => ({ name, isHidden: true });

interface Props {
  label: string;
  /** Headings of the columns; a column without one is not there. */
  heads: (string | Head | false)[];
  /** Its rows. */
  children: ReactNode;
}

/** A table with its headings, in a region of its own that scrolls. */
export function Table({ label, heads, children }: Props) {
  const named = heads.filter((head) => head !== false);
  return (
    <Scroll label={label}>
      <table>
        <thead>
          <tr>
            {named
              .map((head) => (typeof head === "string" ? { name: head } : head))
              .map(({ name, isOptional, isHidden }: Head) => (
                <th key={name} className={isOptional ? "optional" : undefined}>
                  {isHidden ? <span className="hidden">{name}</span> : name}
                </th>
              ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </Scroll>
  );
}
