/** The part of swagger-ui-dist that is used: it has no types of its own. */
declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  interface Options {
    domNode: HTMLElement;
    url: string;
    docExpansion: "list" | "full" | "none";
    defaultModelsExpandDepth: number;
    validatorUrl: null;
    plugins: { wrapComponents: Record<string, () => () => null> }[];
    requestInterceptor: (request: { url: string; loadSpec?: boolean; signal?: AbortSignal }) => unknown;
  }
  export default function swaggerUi(options: Options): unknown;
}
