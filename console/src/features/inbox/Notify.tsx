import { useState } from "react";
import { Problem } from "../../components/Problem";
import { PushSwitch } from "./PushSwitch";
import { CAN_NOTIFY, set, useSetting } from "./useNotices";

/** Switches of this browser for what begins to wait while the page is open. */
export function Notify() {
  const notifications = useSetting("notifications");
  const sound = useSetting("sound");
  const [problem, setProblem] = useState<unknown>();
  const turn = async (setting: "notifications" | "sound", on: boolean) => {
    setProblem(undefined);
    try {
      await set(setting, on);
    } catch (error) {
      setProblem(error);
    }
  };
  return (
    <>
      <fieldset className="bar">
        <legend className="quiet">When something begins to wait, while a page is open in this browser</legend>
        <button
          type="button"
          aria-pressed={notifications}
          disabled={!CAN_NOTIFY}
          onClick={() => void turn("notifications", !notifications)}
        >
          Notification: {notifications ? "on" : "off"}
        </button>
        <button type="button" aria-pressed={sound} onClick={() => void turn("sound", !sound)}>
          Sound: {sound ? "on" : "off"}
        </button>
        {!CAN_NOTIFY && <span className="quiet">Browsers offer notifications over HTTPS only.</span>}
      </fieldset>
      <Problem error={problem} />
      <PushSwitch />
    </>
  );
}
