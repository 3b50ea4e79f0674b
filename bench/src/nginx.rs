//! nginx as a plain streaming pass-through: the yardstick that everybody knows.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Error;

/// nginx, if it is installed.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join("nginx"))
        .find(|program| program.is_file())
}

/// Writes a configuration for a plain streaming pass-through, with upstream keep-alive, that writes nowhere else.
pub(crate) fn directory(
    upstream: SocketAddr,
    listen: SocketAddr,
    workers: usize,
) -> Result<PathBuf, Error> {
    let name = format!("shadowcat-bench-{}-{}", std::process::id(), listen.port());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).map_err(Error::io("making a directory for nginx"))?;
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let configuration = format!(
        "{user}
daemon off;
pid nginx.pid;
worker_processes {workers};
worker_rlimit_nofile 16384;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    upstream mcp {{
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://mcp;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"
    );
    fs::write(directory.join("nginx.conf"), configuration)
        .map_err(Error::io("writing nginx.conf"))?;
    Ok(directory)
}
