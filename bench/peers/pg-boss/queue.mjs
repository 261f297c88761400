// Settings that the processes of pg-boss share.

export const QUEUE = "bench";
export const NOTIFY = Boolean(process.env.BENCH_NOTIFY);
export const options = { connectionString: process.env.DATABASE_URL, useListenNotify: NOTIFY };
