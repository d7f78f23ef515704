//! What a page must be without a browser to look at it: whole, on its own, and no wider than a phone.

#![allow(dead_code, reason = "each test file uses its part")]

const VOID: [&str; 4] = ["meta", "br", "hr", "img"];

/// Every element is closed in its turn; ids of tags, texts and attributes hold no stray `<`
fn check_balance(page: &str) {
    let mut open: Vec<(&str, usize)> = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(next) = page[at..].find('<') {
        line += page[at..at + next].matches('\n').count();
        at += next;
        let rest = &page[at..];
        let end = rest.find('>').unwrap_or_else(|| panic!("line {line}: a tag that does not end"));
        let tag = &rest[1..end];
        assert!(!tag.contains('<'), "line {line}: `<` inside `<{tag}>`");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
        if tag.starts_with('/') {
            let (opened, opened_at) = open.pop().unwrap_or_else(|| panic!("line {line}: `</{name}>` closes nothing"));
            assert_eq!(opened, name, "line {line} closes what line {opened_at} opened");
        } else if !tag.starts_with('!') && !tag.ends_with('/') && !VOID.contains(&name) {
            open.push((name, line));
            // Style is no markup
            if name == "style" {
                at += rest.find("</style>").expect("the style ends");
                line += rest[..rest.find("</style>").unwrap_or(0)].matches('\n').count();
                continue;
            }
        }
        line += rest[..=end].matches('\n').count();
        at += end + 1;
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

/// A page that opens from disk on any screen, in the light and in the dark
pub fn check(page: &str) {
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
    check_balance(page);
    for needed in [
        r#"<meta charset="utf-8">"#,
        r#"<meta name="viewport" content="width=device-width, initial-scale=1">"#,
        "default-src 'none'",
        "prefers-color-scheme: dark",
        // Figures shrink, long words break, and only tables may scroll, in a box of their own
        "svg { display: block; width: 100%; height: auto; }",
        "overflow-wrap: anywhere",
        ".wide { overflow-x: auto; }",
    ] {
        assert!(page.contains(needed), "the page lacks `{needed}`");
    }
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "the page holds `{outside}`");
    }
    assert_eq!(page.matches("<table").count(), page.matches(r#"<div class="wide"><table"#).count());
    assert_eq!(page.matches("<svg").count(), page.matches("<figure>").count(), "a figure in each frame");
    for svg in page.split("<svg").skip(1) {
        let tag = &svg[..svg.find('>').unwrap_or(0)];
        assert!(tag.contains("viewBox=") && tag.contains("role=\"img\"") && tag.contains("aria-label="), "{tag}");
    }
}
