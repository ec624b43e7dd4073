//! The programs in `docs/`: each page's is run as it stands there, and must print what the page
//! says.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::builds::{Missing, home};
use crate::job::{self, Context, Running};
use crate::matrix::Case;
use crate::report::Outcome;

pub fn run(context: &Context, case: &Case) {
    let built = context.builds.wait(case.client.program);
    let begin = Instant::now();
    let outcome = match built {
        Err(Missing::Toolchain(reason)) => Outcome::Skip(reason),
        Err(Missing::Broken(output)) => Outcome::Fail(output),
        Ok(()) => match attempt(context, case.scenario) {
            Ok(()) => Outcome::Pass,
            Err(output) => Outcome::Fail(output),
        },
    };
    let name = case.to_string();
    context
        .report
        .add(context.phase, &name, begin.elapsed(), outcome);
}

fn attempt(context: &Context, page: &str) -> Result<(), String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = std::fs::read_to_string(docs.join(page)).map_err(|error| error.to_string())?;
    let program = block(&text, "java").ok_or("the page has no program")?;
    let expected = block(&text, "text").ok_or("the page does not say what it prints")?;
    let directory = context.directory.join(format!("docs-{page}"));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let source = directory.join("Example.java");
    std::fs::write(&source, program).map_err(|error| error.to_string())?;
    let libraries = format!("{}/lib/*", home().join("java/target/5.5.0").display());
    let mut command = job::jvm(&directory);
    command
        .args(["-cp", &libraries])
        .arg(&source)
        .env("NAMESRV_ADDR", &context.namesrv)
        .env("HOME", &directory);
    let printed = Running::spawn(command, &directory)?.printed()?;
    match printed == expected {
        true => shell(context, &text, &directory),
        false => Err(format!("expected:\n{expected}printed:\n{printed}")),
    }
}

/// Runs the page's commands, each of which must succeed.
fn shell(context: &Context, text: &str, directory: &Path) -> Result<(), String> {
    let commands = block(text, "sh").ok_or("the page has no commands")?;
    let binary = Path::new(env!("CARGO_BIN_EXE_orbitmq"));
    let folder = binary.parent().ok_or("no folder")?.display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut sh = Command::new("sh");
    sh.args(["-e", "-c", commands])
        .env("PATH", format!("{folder}:{path}"))
        .env("NAMESRV_ADDR", &context.namesrv);
    Running::spawn(sh, directory)?.printed().map(drop)
}

/// The first block of a language, its last line break included.
fn block<'a>(text: &'a str, language: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("```{language}\n"))?;
    let end = rest.find("```")?;
    Some(&rest[..end])
}
