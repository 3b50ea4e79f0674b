//! `forward` and `reverse`: the proxy itself.
//!
//! The two differ in what the command line sets; from here on a client edge is either a pipe or an
//! HTTP endpoint.

use std::io::IsTerminal as _;
use std::sync::Arc;

use shadowcat_proxy::session::Shared;
use shadowcat_proxy::{forward, reverse};
use shadowcat_transport::downstream::http::{PATH, Tcp};
use shadowcat_transport::downstream::stdio;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::Admin;
use crate::cli::Proxy;
use crate::cli::server::Server;
use crate::cli::values::Listen;
use crate::failure::Failure;
use crate::{assembly, listen, shutdown, telemetry};

/// Runs until a signal, or the client, ends it.
///
/// # Errors
/// [`Failure`] when it cannot start, or when a lost session was to end it.
pub(crate) async fn run(proxy: Proxy) -> Result<(), Failure> {
    let shared = assembly::pipeline(&proxy)?;
    if let Server::Command(_) = proxy.server {
        // A server with a URL may come later; a command that does not exist will not.
        shared.upstream.probe().await.map_err(Failure::Runtime)?;
    }
    let shutdown = shutdown::on_signals()?;
    let admin = start_admin(&proxy, &shared, &shutdown).await?;
    let served = match &proxy.listen {
        Some(address) => serve_http(&proxy, address, shared, shutdown).await,
        None => serve_stdio(&proxy, shared, shutdown).await,
    };
    if let Some(admin) = admin {
        admin.abort();
    }
    served
}

async fn serve_http(
    proxy: &Proxy,
    address: &Listen,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let listener = listen::bind("--listen", address).await?;
    let bound = address_of(&listener)?;
    info!(target: telemetry::STARTUP, server = shared.upstream.name(), "listening on http://{bound}{PATH}");
    let edge = assembly::http_edge(&proxy.options);
    let drain = proxy.options.operation.drain_timeout;
    reverse::http(
        shared,
        Tcp(listener),
        edge,
        shutdown.cancelled_owned(),
        drain,
    )
    .await;
    Ok(())
}

async fn serve_stdio(
    proxy: &Proxy,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let no_pipe = |error| Failure::Runtime(format!("cannot use stdin and stdout: {error}"));
    let stdin = stdio::standard_input().map_err(no_pipe)?;
    let stdout = stdio::standard_output().map_err(no_pipe)?;
    let drain = proxy.options.operation.drain_timeout;
    let server = shared.upstream.name().to_owned();
    if std::io::stdin().is_terminal() {
        // Nothing is done or said before a client's first message, which looks dead to a user.
        info!(
            server,
            "waiting for an MCP client on stdin and stdout, and stdin is a terminal: a client starts \
             this command by itself; with --listen HOST:PORT it serves HTTP"
        );
    }
    let ended = forward::stdio(shared, stdin, stdout, shutdown, drain).await;
    match ended {
        forward::Ended::Eof | forward::Ended::Shutdown => Ok(()),
        forward::Ended::SessionLost => Err(Failure::Runtime(format!(
            "the session with {server} was lost, and --on-session-loss propagate ends the client's \
             with it; start again, or use --on-session-loss heal"
        ))),
    }
}

async fn start_admin(
    proxy: &Proxy,
    shared: &Arc<Shared>,
    shutdown: &CancellationToken,
) -> Result<Option<tokio::task::JoinHandle<()>>, Failure> {
    let Some(address) = &proxy.options.operation.admin else {
        return Ok(None);
    };
    let listener = listen::bind("--admin", address).await?;
    let bound = address_of(&listener)?;
    info!(target: telemetry::STARTUP, "health and metrics on http://{bound}/");
    let admin = Admin {
        metrics: Arc::clone(&shared.metrics),
        upstream: Arc::clone(&shared.upstream),
        shutdown: shutdown.clone(),
        access: address
            .is_loopback()
            .then(|| assembly::access(&proxy.options.access)),
    };
    Ok(Some(tokio::spawn(admin.serve(listener))))
}

fn address_of(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    let address = listener.local_addr();
    address.map_err(|error| Failure::Runtime(format!("cannot tell the port: {error}")))
}
