//! Who may ask: a web page elsewhere must not reach a server on this machine through its reader's browser.
//!
//! * A page whose name resolves to this address (DNS rebinding) sends that name as `Host`: names other than this machine's are
//!   refused. Addresses are no names, and cannot be rebound.
//! * A page of another origin sends it as `Origin`, with a simple request even unasked: it is refused, unless `--cors` names it.
//! * With a key, requests need it. Keys are compared by their hashes, so that no time tells how much of one is right.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use sha2::{Digest, Sha256};

use super::problem::Problem;

pub(super) struct Guard {
    /// Names of this machine, in lower case.
    pub(super) hosts: Vec<String>,
    /// Origins whose pages may ask; `*` for all.
    pub(super) origins: Vec<String>,
    key: Option<[u8; 32]>,
}

impl Guard {
    pub(super) fn new(key: Option<&str>, hosts: &[String], origins: &[String]) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let own = [format!("{own}.local"), own, "localhost".into()];
        let hosts = own.into_iter().chain(hosts.iter().map(|host| host.to_lowercase())).collect();
        Guard { hosts, origins: origins.to_vec(), key: key.map(|key| Sha256::digest(key).into()) }
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Checks `Host`, of which there is one, and `Origin`. A whole address in the first line is in the place of the former;
    /// HTTP/1.0 knows no hosts; no browser speaks it, but whatever is between one and this may: then no origin is this server's own.
    pub(super) fn whence(&self, headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), Problem> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST));
        if headers.get_all(HOST).iter().nth(1).is_some() {
            return Err(Problem::invalid("The request has several Host headers."));
        }
        match host {
            None if version >= Version::HTTP_11 => return Err(Problem::invalid("The request has no Host header.")),
            Some(host) if !self.knows(host) => {
                let message = format!("The host {host:?} is not this server's name; --allow-host adds names.");
                return Err(Problem::new(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
            }
            _ => {}
        }
        match text(ORIGIN) {
            Some(origin) if !self.allows(origin) && !host.is_some_and(|host| is_own(origin, host)) => {
                let message = format!("Pages of {origin:?} may not ask this server; --cors adds origins.");
                Err(Problem::new(StatusCode::FORBIDDEN, message).code("origin_not_allowed"))
            }
            _ => Ok(()),
        }
    }

    /// Whether pages of an origin may ask.
    pub(super) fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }

    fn knows(&self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let Some((address, port)) = rest.split_once(']') else { return false };
                // What is behind `%` is the interface of a link-local address.
                (address.split('%').next().unwrap_or_default(), port)
            }
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        // Whoever is before the server might take what is behind one for the name.
        if host.contains('@') || !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return false;
        }
        let name = name.trim_end_matches('.').to_lowercase();
        name.parse::<IpAddr>().is_ok() || name.ends_with(".localhost") || self.hosts.contains(&name)
    }

    /// Checks the key.
    pub(super) fn who(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let hash: [u8; 32] = Sha256::digest(given.map_or("", |(_, key)| key.trim())).into();
        let differs = hash.iter().zip(key).fold(0, |bits, (a, b)| bits | (a ^ b));
        if given.is_some() && std::hint::black_box(differs) == 0 {
            return Ok(());
        }
        let message = match given {
            None => "You didn't provide an API key: send it as Authorization: Bearer KEY.",
            Some(_) => "Incorrect API key provided.",
        };
        Err(Problem::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
    }
}

/// Whether an origin is this server's own.
fn is_own(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(list: &[(HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn guard() -> Guard {
        Guard::new(Some("secret"), &["Board.example".into()], &["https://ui.example".into()])
    }

    #[test]
    fn names_that_could_be_rebound_are_refused() {
        let allowed =
            |host: &str| guard().whence(&headers(&[(HOST, host)]), &Uri::from_static("/"), Version::HTTP_11).is_ok();
        for good in [
            "localhost:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[fe80::1%25eth0]:80",
            "192.168.1.7:80",
            "a.localhost",
            "board.example:1",
            "LOCALHOST.",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example",
            "",
            "[evil]",
            "[evil%25::1]",
            "evil@a.localhost",
            "localhost:1@evil.example",
            "localhost:80:evil.example",
            "localhost:http",
            "[::1",
            "[::1]evil.example",
            "[::1]:80@evil.example",
            "xlocalhost",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(guard().whence(&headers(&[]), &Uri::from_static("/"), Version::HTTP_11).is_err());
    }

    /// RFC 9112, section 3.2; whoever is before the server might have looked at the other one.
    #[test]
    fn two_hosts_are_refused_as_none_is() {
        let mut two = headers(&[(HOST, "localhost")]);
        two.append(HOST, HeaderValue::from_static("evil.example"));
        for bad in [two, headers(&[])] {
            let problem = guard().whence(&bad, &Uri::from_static("/"), Version::HTTP_11).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{bad:?}");
        }
        let old = |uri| guard().whence(&headers(&[]), &Uri::from_static(uri), Version::HTTP_10);
        assert!(old("/").is_ok());
        // Of two names the one that counts.
        assert!(old("http://evil.example/").is_err());
        let whole = |uri, host| guard().whence(&headers(&[(HOST, host)]), &Uri::from_static(uri), Version::HTTP_11);
        assert!(whole("http://localhost/", "localhost").is_ok() && whole("http://evil.example/", "localhost").is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let allowed = |origin: &str| {
            guard()
                .whence(
                    &headers(&[(HOST, "localhost:8080"), (ORIGIN, origin)]),
                    &Uri::from_static("/"),
                    Version::HTTP_11,
                )
                .is_ok()
        };
        assert!(allowed("http://localhost:8080") && allowed("https://ui.example"));
        for bad in ["http://localhost:8081", "https://ui.example.evil", "null", "http://evil.example"] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    /// Such as of a page whose name was rebound, behind a proxy that leaves out the name.
    #[test]
    fn without_a_host_no_origin_is_the_servers_own() {
        let old = |origin: &str| {
            guard().whence(&headers(&[(ORIGIN, origin)]), &Uri::from_static("/"), Version::HTTP_10).is_ok()
        };
        assert!(old("https://ui.example"));
        assert!(!["http://localhost", "http://127.0.0.1", "http://evil.example", "null"].iter().any(|bad| old(bad)));
    }

    #[test]
    fn a_key_is_needed_where_there_is_one() {
        let who = |value: &str| guard().who(&headers(&[(AUTHORIZATION, value)])).is_ok();
        assert!(who("Bearer secret") && who("bearer secret"));
        assert!(!["Bearer secre", "Bearer secret2", "secret", "Basic secret", "Bearer "].iter().any(|bad| who(bad)));
        assert!(guard().who(&HeaderMap::new()).is_err());
        let open = Guard::new(None, &[], &[]);
        assert!(open.who(&HeaderMap::new()).is_ok() && !open.has_key());
    }
}
