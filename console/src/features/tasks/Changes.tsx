import { useQuery } from "@tanstack/react-query";
import { type KeyboardEvent, memo, useState } from "react";
import { content } from "../../api/client";
import { query } from "../../api/format";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { Download } from "./Download";
import { type ChangedFile, type Comment, filesOf, keyOf, type Line, placeOf } from "./patch";

/** Bytes of a patch that are shown. */
const MAX_PATCH = 4 << 20;
/** Lines of all files that are shown without a click. */
const OPEN_LINES = 400;
/** Lines of a file that are shown at a time. */
const LINES = 1000;
/** Files that are listed at a time. */
const FILES = 200;

interface Props {
  task: string;
  attempt: number;
  /** Name of the artifact with the patch. */
  patch: string;
  comments: ReadonlyMap<string, Comment>;
  /** Keeps or removes the comment on a line; without it, lines take none. */
  onComment?: ((key: string, comment: Comment | undefined) => void) | undefined;
}

/** What an attempt has changed in its repository, line by line. */
export default function Changes({ task, attempt, patch, comments, onComment }: Props) {
  const [shown, setShown] = useState(FILES);
  const found = useQuery({
    queryKey: ["patch", task, attempt],
    // What an attempt has left never changes.
    staleTime: Number.POSITIVE_INFINITY,
    queryFn: async ({ signal }) => {
      const path = `${task}/artifacts:download${query({ attempt, name: patch })}`;
      const { data, isWhole } = await content(path, MAX_PATCH, signal);
      return { files: filesOf(data, isWhole), isWhole };
    },
  });
  if (!found.data) {
    return found.error ? (
      <>
        <Problem error={found.error} />
        <Download task={task} attempt={attempt} name={patch} />
      </>
    ) : (
      <p role="status">Loading the changes…</p>
    );
  }
  const { files, isWhole } = found.data;
  let lines = 0;
  const isOpen = (file: ChangedFile) => {
    lines += file.added + file.removed;
    return lines <= OPEN_LINES;
  };
  return (
    <>
      {!isWhole && (
        <p className="problem">
          Only the first {MAX_PATCH >> 20} MiB of the changes are shown. The download has all of them.
        </p>
      )}
      {files.slice(0, shown).map((file) => (
        <File key={file.path} file={file} isOpen={isOpen(file)} comments={comments} onComment={onComment} />
      ))}
      {files.length > shown && (
        <button type="button" onClick={() => setShown(shown + FILES)}>
          Show more of {files.length} files
        </button>
      )}
      <Download task={task} attempt={attempt} name={patch} />
    </>
  );
}

function File({
  file,
  isOpen,
  comments,
  onComment,
}: Pick<Props, "comments" | "onComment"> & { file: ChangedFile; isOpen: boolean }) {
  const [open, setOpen] = useState(isOpen);
  const [shown, setShown] = useState(LINES);
  // One line is in the order of the tab key; the arrows move to the others.
  const [current, setCurrent] = useState(0);
  const [editing, setEditing] = useState("");
  const total = file.hunks.reduce((sum, hunk) => sum + hunk.lines.length, 0);
  const move = (event: KeyboardEvent<HTMLTableElement>) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...event.currentTarget.querySelectorAll<HTMLButtonElement>("button.on-line")];
    const at = buttons.indexOf(event.target as HTMLButtonElement);
    const next = step && at >= 0 ? buttons[at + step] : undefined;
    if (next) {
      event.preventDefault();
      setCurrent(Number(next.dataset.line));
      next.focus();
    }
  };
  let index = 0;
  return (
    <details className="card" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span className="path">{file.path}</span> <span className="added">+{file.added}</span>{" "}
        <span className="removed">−{file.removed}</span>{" "}
        <span className="quiet">{file.notes.join(", ")}</span>
      </summary>
      {open && file.hunks.length > 0 && (
        <Scroll label={`Changes of ${file.path}`}>
          <table className="diff" onKeyDown={move}>
            {file.hunks.map((hunk) => (
              <tbody key={hunk.header}>
                <tr>
                  <td colSpan={4} className="quiet">
                    {hunk.header}
                  </td>
                </tr>
                {hunk.lines.slice(0, Math.max(0, shown - index)).map((line) => {
                  const own = index++;
                  const key = keyOf(file.path, line);
                  const comment = comments.get(key);
                  return (
                    <Row
                      key={`${own}`}
                      path={file.path}
                      line={line}
                      index={own}
                      isCurrent={own === current}
                      onEdit={onComment && line.kind !== "note" ? setEditing : undefined}
                    >
                      {onComment && (comment || editing === key) ? (
                        <CommentForm
                          place={placeOf(file.path, line)}
                          text={comment?.text ?? ""}
                          onSave={(text) => {
                            setEditing("");
                            onComment(key, text.trim() ? { path: file.path, line, text } : undefined);
                          }}
                        />
                      ) : null}
                    </Row>
                  );
                })}
              </tbody>
            ))}
          </table>
        </Scroll>
      )}
      {open && total > shown && (
        <button type="button" onClick={() => setShown(shown + LINES)}>
          Show more of {total} lines
        </button>
      )}
    </details>
  );
}

const SIGNS = { added: "+", removed: "−", same: "", note: "" };

interface RowProps {
  path: string;
  line: Line;
  index: number;
  isCurrent: boolean;
  onEdit?: ((key: string) => void) | undefined;
  children: React.ReactNode;
}

/** A line, drawn again only if it or its comment has changed: a file has many. */
const Row = memo(
  function Row({ path, line, index, isCurrent, onEdit, children }: RowProps) {
    return (
      <>
        <tr className={line.kind}>
          <td className="number">{line.before}</td>
          <td className="number">{line.after}</td>
          <td className="sign">
            {onEdit ? (
              <button
                type="button"
                className="on-line"
                data-line={index}
                tabIndex={isCurrent ? 0 : -1}
                aria-label={`Comment on ${placeOf(path, line)}`}
                onClick={() => onEdit(keyOf(path, line))}
              >
                {SIGNS[line.kind] || "·"}
              </button>
            ) : (
              SIGNS[line.kind]
            )}
          </td>
          <td className="code">{line.text}</td>
        </tr>
        {children && (
          <tr>
            <td colSpan={4}>{children}</td>
          </tr>
        )}
      </>
    );
  },
  (one, other) =>
    one.line === other.line &&
    one.isCurrent === other.isCurrent &&
    one.onEdit === other.onEdit &&
    one.children === null &&
    other.children === null,
);

/** The comment on a line, which the next task gets. */
function CommentForm({
  place,
  text,
  onSave,
}: {
  place: string;
  text: string;
  onSave: (text: string) => void;
}) {
  return (
    <form
      className="answer"
      aria-label={`Comment on ${place}`}
      onSubmit={(event) => {
        event.preventDefault();
        onSave(String(new FormData(event.currentTarget).get("text") ?? ""));
      }}
    >
      <label>
        Comment on {place}
        {/* biome-ignore lint/a11y/noAutofocus: it appears where the line was chosen */}
        <textarea name="text" defaultValue={text} maxLength={8192} autoFocus={text === ""} />
      </label>
      <div className="choices">
        <button type="submit">Keep comment</button>
        <button type="button" onClick={() => onSave("")}>
          Remove comment
        </button>
      </div>
    </form>
  );
}
