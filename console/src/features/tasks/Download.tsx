import { type MouseEvent, type ReactNode, useRef, useState } from "react";
import { address, content } from "../../api/client";
import { id, query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import { Problem } from "../../components/Problem";

/** A link to an artifact. */
export function Download({ task, attempt, name }: { task: string; attempt: number; name: string }) {
  return (
    <DownloadLink path={`${task}/artifacts:download${query({ attempt, name })}`} file={id(name)}>
      Download <span className="hidden">{visibleLine(name)}</span>
    </DownloadLink>
  );
}

/**
 * A link to a content, which the browser saves while it arrives: the page holds nothing of it. The page reads its first bytes before,
 * since browsers neither report a download that is refused nor have a person sign in again for it.
 */
export function DownloadLink({ path, file, children }: { path: string; file: string; children: ReactNode }) {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const isChecked = useRef(false);
  const follow = async (event: MouseEvent<HTMLAnchorElement>) => {
    if (isChecked.current) {
      isChecked.current = false;
      return;
    }
    event.preventDefault();
    if (busy) {
      return;
    }
    const link = event.currentTarget;
    setError(undefined);
    setBusy(true);
    try {
      await content(path, 0);
    } catch (failed) {
      setError(failed);
      return;
    } finally {
      setBusy(false);
    }
    isChecked.current = true;
    link.click();
  };
  return (
    <>
      <a className="button" href={address(path)} download={file} onClick={follow} aria-busy={busy}>
        {children}
      </a>
      <Problem error={error} />
    </>
  );
}
