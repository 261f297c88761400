import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { content } from "../../api/client";
import { query } from "../../api/format";
import { named, visibleLine } from "../../api/plain";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";

/** Bytes of a text that are shown. */
const MAX_TEXT = 256 << 10;
/** Bytes of an image that is shown. */
const MAX_IMAGE = 16 << 20;
const IMAGES: Record<string, string> = {
  avif: "image/avif",
  gif: "image/gif",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  png: "image/png",
  svg: "image/svg+xml",
  webp: "image/webp",
};

interface Props {
  task: string;
  attempt: number;
  name: string;
}

/** The begin of a text, or an image. As an image, a drawing runs no script and loads nothing. */
export function Preview({ task, attempt, name }: Props) {
  const type = IMAGES[name.split(".").at(-1)?.toLowerCase() ?? ""];
  const found = useQuery({
    queryKey: ["content", task, attempt, name],
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    queryFn: ({ signal }) =>
      content(`${task}/artifacts:download${query({ attempt, name })}`, type ? MAX_IMAGE : MAX_TEXT, signal),
  });
  if (!found.data) {
    return found.error ? <Problem error={found.error} /> : <p role="status">Loading…</p>;
  }
  const { data, isWhole } = found.data;
  if (type) {
    return isWhole ? (
      <Picture data={data} type={type} name={name} />
    ) : (
      <p role="status">The image has more than {MAX_IMAGE >> 20} MiB.</p>
    );
  }
  const text = textOf(data, isWhole);
  if (text === null) {
    return <p role="status">This is no text.</p>;
  }
  return (
    <>
      <Scroll label={`Text of ${visibleLine(name)}`}>
        <pre>{named(text)}</pre>
      </Scroll>
      {!isWhole && <p role="status">These are the first {MAX_TEXT >> 10} KiB.</p>}
    </>
  );
}

function Picture({ data, type, name }: { data: Uint8Array<ArrayBuffer>; type: string; name: string }) {
  const [url, setUrl] = useState("");
  const [isBroken, setIsBroken] = useState(false);
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([data], { type }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [data, type]);
  if (isBroken) {
    return <p role="status">This is no image.</p>;
  }
  return url && <img src={url} alt={visibleLine(name)} onError={() => setIsBroken(true)} />;
}

/** Returns the text that some bytes are; `null` if they are none. The last character may be cut off. */
function textOf(data: Uint8Array, isWhole: boolean): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data, { stream: !isWhole });
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}
