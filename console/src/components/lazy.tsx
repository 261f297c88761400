import { lazyRouteComponent } from "@tanstack/react-router";
import type { FunctionComponent } from "react";
import { NotLoaded, PageNotLoaded } from "./NotLoaded";
import { type Load, useLoaded } from "./useLoaded";

/**
 * Returns how to load a file with its style sheets. Its import asks for each of these once, and leaves out those that have failed when it
 * is repeated: they are loaded before.
 */
function withStyles<T>(load: () => Promise<T>): () => Promise<T> {
  const lost = new Set<string>();
  const note = ({ target }: Event) => {
    if (target instanceof HTMLLinkElement && target.rel === "stylesheet") {
      lost.add(target.href);
      target.remove();
    }
  };
  const loadAgain = async (href: string) => {
    await loadStyle(href);
    lost.delete(href);
  };
  return async () => {
    // These events do not bubble.
    document.addEventListener("error", note, true);
    try {
      await Promise.all([...lost].map(loadAgain));
      return await load();
    } finally {
      document.removeEventListener("error", note, true);
    }
  };
}

function loadStyle(href: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = href;
    link.onload = () => resolve();
    link.onerror = () => reject(new Error(`failed to load ${href}`));
    document.head.append(link);
  });
}

/** A part of a page that is loaded when it is shown. If that fails, the page around it stays, with what was typed there. */
export function lazyPart<P extends object>(load: Load<P>) {
  return partOf(withStyles(load), NotLoaded);
}

function partOf<P extends object>(load: Load<P>, replacement: FunctionComponent) {
  // biome-ignore lint/correctness/noComponentHookFactories: called once for each part, when its module is loaded
  return function Part(props: P) {
    const Loaded = useLoaded(load, replacement);
    return Loaded ? <Loaded {...props} /> : <p role="status">Loading…</p>;
  };
}

/** A page that is loaded when it is opened. If that fails, the navigation stays; the router would reload the window by itself. */
export function lazyPage(load: () => Promise<FunctionComponent>) {
  const page = withStyles(async () => ({ default: await load() }));
  // The router keeps what it was given: this one loads the page with each visit.
  const Again = partOf(page, PageNotLoaded);
  return lazyRouteComponent(() => page().catch(() => ({ default: Again })));
}
