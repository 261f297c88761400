import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { overwrite } from "../../api/refresh";
import { Problem } from "../../components/Problem";
import { CAN_PUSH, PUSH_QUERY, readPush, turnPushOff, turnPushOn, type WebPush } from "./push";

/** Switch of this browser for what begins to wait while no page is open. Pages without a session have none. */
export function PushSwitch() {
  const cache = useQueryClient();
  const state = useQuery({
    queryKey: PUSH_QUERY,
    queryFn: ({ signal }) => readPush(signal),
    enabled: CAN_PUSH,
    retry: false,
  });
  const { publicKey, subscribed: isOn = false } = state.data ?? {};
  const turn = useMutation({
    mutationFn: () => (isOn ? turnPushOff() : turnPushOn(publicKey ?? "")),
    onSuccess: (push: WebPush) => overwrite(cache, PUSH_QUERY, push),
  });
  if (!publicKey) {
    return null;
  }
  return (
    <>
      <fieldset className="bar">
        <legend className="quiet">
          Also while no page is open, through the push service of this browser, until you sign out
        </legend>
        <button type="button" aria-pressed={isOn} disabled={turn.isPending} onClick={() => turn.mutate()}>
          Push messages: {isOn ? "on" : "off"}
        </button>
      </fieldset>
      <Problem error={turn.error} />
    </>
  );
}
