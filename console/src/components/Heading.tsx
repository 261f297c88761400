import { type ReactNode, useEffect, useLayoutEffect, useRef } from "react";
import { setPageTitle } from "./title";

/** Path of the page of the last heading. */
let lastPath: string | undefined;
/** Whether the last heading had the focus when it was removed. */
let hadFocus = false;

/**
 * The heading of a page, which also names its tab. The heading of a page that a navigation has opened takes the focus, so that screen
 * readers announce it; one in the place of another heading, such as that of a record that was still being read, takes it over.
 */
export function Heading({
  what,
  which,
  children = which || what,
}: {
  /** What the page shows. */
  what: string;
  /** Which of them, if there are several. */
  which?: string;
  children?: ReactNode;
}) {
  const element = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    const heading = element.current;
    const isOpened = lastPath !== undefined && lastPath !== location.pathname;
    // The field of the namespace stays when pages change: what is typed there continues.
    if (hadFocus || (isOpened && !document.activeElement?.matches("input"))) {
      heading?.focus({ preventScroll: true });
    }
    lastPath = location.pathname;
    hadFocus = false;
    return () => {
      hadFocus = document.activeElement === heading;
    };
  }, []);
  useEffect(() => {
    setPageTitle(which ? `${what} · ${which}` : what);
  }, [what, which]);
  return (
    <h1 ref={element} tabIndex={-1}>
      {children}
    </h1>
  );
}
