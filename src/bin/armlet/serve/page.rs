//! The page at `/`: one file, put together here, which asks nothing of anybody but this server.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>\n",
    include_str!("page/style.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>\n",
    include_str!("page/script.js"),
    "</script>\n</body>\n</html>\n"
);

/// The page. Its own script runs, and no other: not even one that a model's text would get into it.
pub(super) fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".into()),
        (CONTENT_SECURITY_POLICY, policy()),
        (CACHE_CONTROL, "no-cache".into()),
        (REFERRER_POLICY, "no-referrer".into()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    (headers, PAGE).into_response()
}

fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(script()));
    format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// The text of its script.
fn script() -> &'static str {
    let script = PAGE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    script.map_or("", |(script, _)| script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_with_one_script() {
        assert!(script().len() > 1000 && PAGE.matches("<script").count() == 1 && PAGE.matches("</script").count() == 1);
        // `data:` and the namespace of SVG are no addresses.
        let outside = PAGE.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://") && !outside.contains("//cdn"));
        // Text becomes part of the page as text alone.
        for bad in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!PAGE.contains(bad), "{bad}");
        }
    }
}
