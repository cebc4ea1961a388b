// Hands over to the unmodified AWS client.
//
// Client 3 exports `run`, client 4 runs by being imported. The client's own program is passed by, because it prints a
// line for every init that AWS's managed runtime does not print. Deliberately absent: everything the client does itself.

const client = await import("aws-lambda-ric");
if (typeof client.run === "function") {
    await client.run(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER);
}
