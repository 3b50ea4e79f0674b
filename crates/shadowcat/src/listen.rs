//! Binding the addresses of the command line.

use std::io::ErrorKind;

use tokio::net::TcpListener;
use tracing::warn;

use crate::cli::values::Listen;
use crate::failure::Failure;

/// Listens on the address of `option`.
///
/// # Errors
/// [`Failure::Runtime`] with what to do about it.
pub(crate) async fn bind(option: &str, address: &Listen) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address.to_string())
        .await
        .map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "the port is in use; choose another with {option}, or port 0 for any free one"
                ),
                ErrorKind::PermissionDenied => {
                    format!("permission denied; choose a port above 1023 with {option}")
                }
                ErrorKind::AddrNotAvailable => {
                    format!(
                        "this machine has no such address; choose one that it has with {option}"
                    )
                }
                _ => format!("{error}; choose another address with {option}"),
            };
            Failure::Runtime(format!("cannot listen on {address}: {remedy}"))
        })?;
    if !address.is_loopback() {
        warn!(
            %address,
            "{option} lets other machines reach the server behind it, and no login is asked for"
        );
    }
    Ok(listener)
}
