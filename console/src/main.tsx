import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { isTransient } from "./api/client";
import { startSession } from "./api/session";
import { isExpired, isSignedIn, onSignIn } from "./api/token";
import { router } from "./router";
import "./styles.css";

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // What the server refuses, it refuses again.
      retry: (count, error) => count < 5 && isTransient(error),
      refetchOnWindowFocus: true,
    },
  },
});
onSignIn(() => {
  if (isSignedIn()) {
    // What was refused meanwhile is read now.
    void queries.invalidateQueries();
  } else if (!isExpired()) {
    // The next person may see less.
    queries.clear();
  }
});

await startSession();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
}
