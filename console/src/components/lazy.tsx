import { lazyRouteComponent } from "@tanstack/react-router";
import type { FunctionComponent } from "react";
import { NotLoaded, PageNotLoaded } from "./NotLoaded";
import { type Load, useLoaded } from "./useLoaded";

/** A part of a page that is loaded when it is shown. If that fails, the page around it stays, with what was typed there. */
export function lazyPart<P extends object>(load: Load<P>, replacement: FunctionComponent = NotLoaded) {
  // biome-ignore lint/correctness/noComponentHookFactories: called once for each part, when its module is loaded
  return function Part(props: P) {
    const Loaded = useLoaded(load, replacement);
    return Loaded ? <Loaded {...props} /> : <p role="status">Loading…</p>;
  };
}

/** A page that is loaded when it is opened. If that fails, the navigation stays; the router would reload the window by itself. */
export function lazyPage(load: () => Promise<FunctionComponent>) {
  const page = async () => ({ default: await load() });
  // The router keeps what it was given: this one loads the page with each visit.
  const Again = lazyPart(page, PageNotLoaded);
  return lazyRouteComponent(() => page().catch(() => ({ default: Again })));
}
