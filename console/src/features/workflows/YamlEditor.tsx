import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import {
  bracketMatching,
  foldGutter,
  foldKeymap,
  HighlightStyle,
  indentOnInput,
  syntaxHighlighting,
} from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { type RefObject, useEffect, useImperativeHandle, useRef } from "react";
import { visible } from "../../api/plain";
import { LONGEST } from "./manifest";

/** A problem of the text, at a line from 1. */
export interface Wrong {
  line: number;
  message: string;
}

/** What the page does with the editor. */
export interface Handle {
  /** Selects a line. */
  show: (line: number) => void;
}

/** The editor adds styles to the page, which the policy permits with the nonce of the response. */
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";

/** The colours of the control centre, which follow the theme by themselves. */
const theme = EditorView.theme({
  "&": {
    height: "65vh",
    color: "var(--text)",
    backgroundColor: "var(--page)",
    border: "1px solid var(--line)",
    borderRadius: "4px",
    fontSize: "0.9em",
  },
  "&.cm-focused": { outline: "2px solid var(--link)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "ui-monospace, monospace" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selected)",
  },
  ".cm-gutters": {
    color: "var(--quiet)",
    backgroundColor: "var(--panel)",
    borderRight: "1px solid var(--line)",
  },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--selected)" },
  ".cm-tooltip": {
    color: "var(--text)",
    backgroundColor: "var(--panel)",
    border: "1px solid var(--line)",
    maxWidth: "min(32rem, 90vw)",
  },
});

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--link)" },
  { tag: tags.string, color: "var(--good)" },
  { tag: [tags.keyword, tags.bool, tags.number, tags.null], color: "var(--wait)" },
  { tag: [tags.comment, tags.meta, tags.separator, tags.punctuation], color: "var(--quiet)" },
]);

/** Tab indents: Escape and then Tab leaves the editor, and `Ctrl` `m` lets Tab leave it always. */
const keys = keymap.of([indentWithTab, ...defaultKeymap, ...historyKeymap, ...foldKeymap, ...lintKeymap]);

/** What is typed over a selection. The browser would join its lines with styles of their own, which the policy forbids. */
const replacing = EditorView.domEventHandlers({
  beforeinput: (event, view) => {
    const selected = getSelection();
    const range = selected && !selected.isCollapsed ? selected.getRangeAt(0) : undefined;
    if (event.inputType !== "insertText" || event.data === null || !range) {
      return false;
    }
    const insert = view.state.toText(event.data);
    const from = view.posAtDOM(range.startContainer, range.startOffset);
    const to = view.posAtDOM(range.endContainer, range.endOffset);
    const selection = { anchor: from + insert.length };
    view.dispatch({
      changes: { from, to, insert },
      selection,
      scrollIntoView: true,
      userEvent: "input.type",
    });
    return true;
  },
});

const extensions = [
  lineNumbers(),
  foldGutter(),
  lintGutter(),
  history(),
  drawSelection(),
  indentOnInput(),
  bracketMatching(),
  yaml(),
  syntaxHighlighting(colours),
  theme,
  keys,
  replacing,
  EditorView.cspNonce.of(nonce),
  EditorState.tabSize.of(2),
  EditorState.changeFilter.of((change) => !change.docChanged || change.newDoc.length <= LONGEST),
];

/** A text in YAML with a problem at its line. It begins with a text, and reports each change of it. */
export default function YamlEditor({
  text,
  wrong,
  labelledBy,
  describedBy,
  onChange,
  ref,
}: {
  text: string;
  wrong: Wrong | undefined;
  labelledBy: string;
  describedBy: string;
  onChange: (text: string) => void;
  ref: RefObject<Handle | null>;
}) {
  const box = useRef<HTMLDivElement>(null);
  const editor = useRef<EditorView>(null);
  const latest = useRef({ text, onChange });
  latest.current = { text, onChange };
  useEffect(() => {
    if (!box.current) {
      return;
    }
    const attributes = {
      "aria-labelledby": labelledBy,
      "aria-describedby": describedBy,
      spellcheck: "false",
      tabindex: "0",
      autocapitalize: "off",
    };
    const view = new EditorView({
      parent: box.current,
      doc: latest.current.text,
      extensions: [
        extensions,
        EditorView.contentAttributes.of(attributes),
        EditorView.updateListener.of(({ docChanged, state }) => {
          if (docChanged) {
            latest.current.onChange(state.doc.toString());
          }
        }),
      ],
    });
    editor.current = view;
    return () => view.destroy();
  }, [labelledBy, describedBy]);
  const [line, message] = [wrong?.line, wrong?.message];
  useEffect(() => {
    const view = editor.current;
    if (!view) {
      return;
    }
    const { doc } = view.state;
    const at = line !== undefined && line >= 1 && line <= doc.lines ? doc.line(line) : undefined;
    const from = at ? at.from + (at.text.length - at.text.trimStart().length) : 0;
    const found = at ? [{ from, to: at.to, severity: "error" as const, message: visible(message) }] : [];
    view.dispatch(setDiagnostics(view.state, found));
    view.contentDOM.setAttribute("aria-invalid", String(message !== undefined));
  }, [line, message]);
  useImperativeHandle(ref, () => ({
    show: (line) => {
      const view = editor.current;
      if (view && line >= 1 && line <= view.state.doc.lines) {
        const { from, to } = view.state.doc.line(line);
        view.dispatch({ selection: { anchor: from, head: to }, scrollIntoView: true });
        view.focus();
      }
    },
  }));
  return <div ref={box} />;
}
