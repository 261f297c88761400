import { type ReactNode, useEffect, useRef } from "react";

interface Props {
  open: boolean;
  title: string;
  onClose: () => void;
  children: ReactNode;
}

/** A modal dialog of the browser: it keeps the focus, and Escape closes it. */
export function Dialog({ open, title, onClose, children }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current;
    if (open && dialog && !dialog.open) {
      dialog.showModal();
    } else if (!open) {
      dialog?.close();
    }
  }, [open]);
  return (
    // The event of a closed dialog arrives later: it may have been opened again. That of Escape arrives before.
    <dialog
      ref={element}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClose={() => element.current?.open || onClose()}
      aria-label={title}
    >
      {open && (
        <>
          <h2>{title}</h2>
          {children}
          <form method="dialog">
            <button type="submit">Close</button>
          </form>
        </>
      )}
    </dialog>
  );
}
