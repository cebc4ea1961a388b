//! The smallest function in Rust, on the published client.
//!
//! What `main` does before `run` is done once: SnapStart takes the snapshot while the client waits for its first event.

use std::sync::atomic::{AtomicU32, Ordering};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

static INVOCATIONS: AtomicU32 = AtomicU32::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let init_id = uuid::Uuid::new_v4();
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let invocations = INVOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
        Ok::<_, Error>(json!({
            "initId": init_id,
            "requestId": event.context.request_id,
            "invocations": invocations,
            "event": event.payload,
            "random": uuid::Uuid::new_v4(),
        }))
    }))
    .await
}
