//! What `serve` prints when it is ready: what it found, and the line to try.

use std::net::SocketAddr;
use std::path::Path;

use api::auth::Auth;
use platform::runtimes::Runtimes;

use super::credentials::{FILE, PROFILE};

/// Prints it. `lacks` is what the kernel does not offer.
pub fn print(address: SocketAddr, auth: &Auth, runtimes: &Runtimes, lacks: &[String], data_dir: &Path) {
    println!("rekindle {} serves http://{address}", env!("CARGO_PKG_VERSION"));
    println!("  data      {}", data_dir.display());
    let all = runtimes.all();
    let names: Vec<String> =
        all.iter().map(|runtime| format!("{} ({})", runtime.id, runtime.version)).collect();
    match names.is_empty() {
        true => println!("  runtimes  none; install one: rekindle runtime install python3.12"),
        false => println!("  runtimes  {}", names.join(", ")),
    }
    match lacks.is_empty() {
        true => println!("  kernel    everything is there"),
        false => println!("  kernel    missing: {}; see rekindle doctor", lacks.join(", ")),
    }
    println!();
    match auth {
        Auth::None => {
            println!("--auth none: whoever reaches {address} may do everything. For local play only.");
            println!("  aws lambda list-functions --endpoint-url http://{address} --no-sign-request");
        }
        Auth::Keys(keys) => {
            println!(
                "Add this profile to ~/.aws/credentials (or use the file {}):",
                data_dir.join(FILE).display()
            );
            println!("  [{PROFILE}]");
            println!("  aws_access_key_id = {}", keys.access_key_id);
            println!("  aws_secret_access_key = {}", keys.secret_access_key);
            println!("then try:");
            println!(
                "  aws lambda list-functions --endpoint-url http://{address} --region {} --profile {PROFILE}",
                keys.region
            );
        }
    }
    println!("Ctrl-C stops the server.");
}
