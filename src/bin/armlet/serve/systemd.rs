//! systemd: sockets that it has opened for the server (`sd_listen_fds(3)`), and what it is told (`sd_notify(3)`). Elsewhere
//! nothing of it is there, and nothing happens.

use std::net::TcpListener;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use listenfd::ListenFd;

use crate::error::Failure;

/// The sockets that systemd has opened, if it has.
pub(super) fn sockets() -> Result<Vec<TcpListener>, Failure> {
    let fail = |e: std::io::Error| Failure::new("a socket from systemd (LISTEN_FDS)", e);
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for i in 0..given.len() {
        let socket = given.take_tcp_listener(i).map_err(fail)?;
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Tells systemd how far the server is: `READY=1`, `STOPPING=1`.
pub(super) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    if let Err(e) = address(&path).and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to)) {
        log::warn!("systemd was not told {state}: {e}");
    }
}

/// A path, or a name that is in no file system behind an `@`.
fn address(path: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(path)
}
