import { type ReactNode, useState } from "react";
import { useMayAct } from "./Acting";
import { Dialog } from "./Dialog";

interface Props {
  label: string;
  /** Name of the button where several have the same label. */
  name?: string;
  /** What is done, with its extent, as a question. */
  question: string;
  onConfirm: (fields: FormData) => Promise<unknown>;
  /** Called when the question is asked: what is shown then is what the person decides on. */
  onOpen?: () => void;
  disabled?: boolean;
  /** Fields of the action, if it has any. */
  children?: ReactNode;
}

/** A button, in no form, whose action is confirmed first, and is done once at a time. Viewers do not see it. */
export function Confirm({ label, name, question, onConfirm, onOpen, disabled, children }: Props) {
  const mayAct = useMayAct();
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const confirm = async (fields: FormData) => {
    setOpen(false);
    setBusy(true);
    try {
      await onConfirm(fields);
    } catch {
      // Shown by the page.
    }
    setBusy(false);
  };
  if (!mayAct) {
    return null;
  }
  return (
    <>
      <button
        type="button"
        aria-label={name}
        disabled={disabled || busy}
        onClick={() => {
          onOpen?.();
          setOpen(true);
        }}
      >
        {label}
      </button>
      <Dialog open={open} onClose={() => setOpen(false)} title={label}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void confirm(new FormData(event.currentTarget));
          }}
        >
          <p>{question}</p>
          {children && <div className="bar">{children}</div>}
          <button type="submit" className="primary">
            {label}
          </button>
        </form>
      </Dialog>
    </>
  );
}
