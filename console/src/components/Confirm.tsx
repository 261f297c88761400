import { useState } from "react";
import { Dialog } from "./Dialog";

interface Props {
  label: string;
  /** What is done, with its extent, as a question. */
  question: string;
  onConfirm: () => void;
  disabled?: boolean;
}

/** A button whose action is confirmed first. */
export function Confirm({ label, question, onConfirm, disabled }: Props) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button type="button" disabled={disabled} onClick={() => setOpen(true)}>
        {label}
      </button>
      <Dialog open={open} onClose={() => setOpen(false)} title={label}>
        <p>{question}</p>
        <button
          type="button"
          className="primary"
          onClick={() => {
            setOpen(false);
            onConfirm();
          }}
        >
          {label}
        </button>
      </Dialog>
    </>
  );
}
