import { useEffect, useRef } from "react";
import swaggerUi from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./api.css";
import { address } from "../../api/client";
import { Heading } from "../../components/Heading";
import { Scroll } from "../../components/Scroll";
import { keepComplete } from "./complete";
import { isStream } from "./streams";

/** The session of the browser signs in, so that there is nothing to be authorized. */
const nothing = () => () => null;
const HIDDEN = {
  InfoContainer: nothing,
  SchemesContainer: nothing,
  authorizeOperationBtn: nothing,
  authorizeBtn: nothing,
};
const DARK = "(prefers-color-scheme: dark)";

/** All calls of the HTTP API, from the OpenAPI document of this control plane, to be read and made. */
export function ApiPage() {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const domNode = document.createElement("div");
    place.current?.replaceChildren(domNode);
    const end = keepComplete(domNode);
    swaggerUi({
      domNode,
      url: address("openapi.json"),
      docExpansion: "none",
      defaultModelsExpandDepth: -1,
      validatorUrl: null,
      plugins: [{ wrapComponents: HIDDEN }],
      requestInterceptor: (request) => {
        if (!request.loadSpec && isStream(request.url)) {
          const reason = new Error("A stream does not end, and is not shown here: read it with curl");
          request.signal = AbortSignal.abort(reason);
        }
        return request;
      },
    });
    return end;
  }, []);
  useEffect(() => {
    const dark = matchMedia(DARK);
    const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
    follow();
    dark.addEventListener("change", follow);
    return () => {
      dark.removeEventListener("change", follow);
      document.documentElement.classList.remove("dark-mode");
    };
  }, []);
  return (
    <>
      <Heading what="HTTP API" />
      <p>
        Calls are made with your session: what they change is changed. Programs use{" "}
        <code>Authorization: Bearer</code> with a token in its place.
      </p>
      <h2 className="hidden">Calls</h2>
      <Scroll label="Calls">
        <div ref={place} />
      </Scroll>
    </>
  );
}
