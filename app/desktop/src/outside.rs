//! Links of the page that lead out of it.

/// What becomes of an address that the page wants to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is the page itself.
    Stay,
    /// The user's browser shows it.
    Browser,
    /// Nobody does.
    Nowhere,
}

/// Decides it. A container's address must never be shown in the window, where it could speak to the shell.
pub fn way(address: &str, own: &str) -> Way {
    // What the page has made itself, to be saved, has an address of its own.
    let address = address.strip_prefix("blob:").filter(|inner| inner.starts_with(own)).unwrap_or(address);
    let is_own =
        address.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '#', '?']));
    if is_own {
        Way::Stay
    } else if ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
        Way::Browser
    } else {
        Way::Nowhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_itself_is_shown_and_only_the_web_leaves() {
        let own = "skiff-window://localhost";
        assert_eq!(way("skiff-window://localhost/#/containers", own), Way::Stay);
        assert_eq!(way("skiff-window://localhost", own), Way::Stay);
        assert_eq!(way("blob:skiff-window://localhost/0b5e-77", own), Way::Stay);
        assert_eq!(way("blob:skiff-window://localhost.evil.example/0b5e", own), Way::Nowhere);
        assert_eq!(way("blob:https://example.com/0b5e", own), Way::Nowhere);
        assert_eq!(way("skiff-window://localhost.evil.example/", own), Way::Nowhere);
        assert_eq!(way("http://localhost:8080/", own), Way::Browser);
        assert_eq!(way("https://example.com/", own), Way::Browser);
        for bad in
            ["file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "skiff://container/x", ""]
        {
            assert_eq!(way(bad, own), Way::Nowhere, "{bad}");
        }
    }
}
