import { Heading } from "./Heading";

/** Shown in place of what cannot be loaded: the files of an older version do not exist after an upgrade. */
export function NotLoaded() {
  return (
    <div role="alert">
      <p className="problem">
        This part of the page cannot be loaded. If the connection was lost, open the part again. If the
        control plane was upgraded, this window is of the older version: reload it.
      </p>
      <p className="quiet">
        Drafts of workflows and of changed tasks stay. Other text that you have typed and not sent does not.
      </p>
      <button type="button" onClick={() => location.reload()}>
        Reload
      </button>
    </div>
  );
}

export function PageNotLoaded() {
  return (
    <>
      <Heading what="Not loaded" />
      <NotLoaded />
    </>
  );
}
