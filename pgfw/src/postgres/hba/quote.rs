//! Names as tokens of pg_hba.conf and pg_ident.conf: each means itself, on every major version that may read it, or there
//! is none.
//!
//! Quoting disarms keywords (`all`, `replication`, `sameuser`, `samerole`, `samehost`, `samenet`), `+group`, `@file`,
//! blanks, commas and `#` (hba.c: `token_is_keyword`, `next_token`). It does **not** disarm a leading `/`: from
//! PostgreSQL 16 on that is a regular expression in both files, in quotes as well (hba.c: `regcomp_auth_token`), and in
//! pg_ident's first name it always was one. There `"/"` matches every certificate.

/// First major in which a leading `/` is an expression in pg_hba.conf and in pg_ident's role column.
const EXPRESSIONS_SINCE: u16 = 16;

/// A database or role name for pg_hba.conf, or a role for pg_ident.conf; `None` when no token means it. On 15 a name with a
/// leading `/` stands for itself, and would let others in once 16 reads the same file: pg_upgradecluster copies it.
pub fn name(name: &str, major: u16) -> Option<String> {
    match name.strip_prefix('/') {
        None => Some(quoted(name)),
        Some(_) if major >= EXPRESSIONS_SINCE => Some(quoted(&format!("/^{}$", escaped(name)))),
        Some(_) => None,
    }
}

/// A system user name (a certificate's CN, an operating-system user) for pg_ident.conf; `None` when no token means it.
pub fn system_user(name: &str) -> Option<String> {
    (!name.starts_with('/')).then(|| quoted(name))
}

/// A value of postgresql.conf (guc-file.l: `DeescapeQuotedString`).
pub fn setting(value: &str) -> String {
    let mut out = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// An expression that matches `text` alone once it is anchored. In an advanced regular expression a backslash before
/// anything but a letter, a digit or `_` stands for that character (regc_lex.c: `lexescape`).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
