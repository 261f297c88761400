/** Whether a call of an address is answered with a stream, which ends with its connection. */
export function isStream(url: string): boolean {
  return /:watch[A-Za-z]*$/.test(new URL(url, "http://localhost").pathname);
}
