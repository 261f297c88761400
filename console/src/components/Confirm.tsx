import { type ReactNode, useRef, useState } from "react";
import { newKey } from "../api/client";
import { useMayAct } from "./Acting";
import { Dialog } from "./Dialog";

interface Props {
  label: string;
  /** Name of the button where several have the same label. */
  name?: string;
  /** What is done, with its extent, as a question. */
  question: string;
  /** Gets a key that stays the same until the action has succeeded, by which a repeated call is recognized, and the fields. */
  onConfirm: (key: string, fields: FormData) => Promise<unknown>;
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
  const key = useRef("");
  const confirm = async (fields: FormData) => {
    setOpen(false);
    setBusy(true);
    key.current ||= newKey();
    try {
      await onConfirm(key.current, fields);
      key.current = "";
    } catch {
      // Shown by the page. The key is kept: the call may have been made all the same.
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
