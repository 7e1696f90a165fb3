//! The window, driven as WebKit's own driver does it: real elements, real clicks, no hooks in the program.
//!
//! Elements are found by `data-testid`, which the pages carry for this.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fantoccini::elements::Element;
use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use ropewalk_lab::Process;
use serde_json::json;

use crate::{Desktop, PATIENCE, app_program, eventually};

/// The program with its window open.
#[derive(Debug)]
pub struct Window {
    client: Client,
    driver: Process,
}

impl Window {
    /// Starts the program on a desktop, with the helper at this socket.
    ///
    /// # Errors
    /// When the driver or the program does not start.
    pub async fn open(desktop: &Desktop, socket: &Path) -> Result<Self> {
        Self::open_with(desktop, socket, &[]).await
    }

    /// The same with arguments.
    ///
    /// # Errors
    /// When the driver or the program does not start.
    pub async fn open_with(desktop: &Desktop, socket: &Path, arguments: &[&str]) -> Result<Self> {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = desktop.command("WebKitWebDriver");
        command
            .arg(format!("--port={port}"))
            .arg("--host=127.0.0.1")
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .env("ROPEWALK_SOCKET", socket)
            .env("ROPEWALK_LOG", "info,ropewalk_app=debug");
        let driver = Process::start(&mut command, &desktop.path("window.log")).context("WebKitWebDriver")?;
        let options = json!({ "binary": app_program()?, "args": arguments });
        let capabilities: Capabilities =
            [("webkitgtk:browserOptions".to_owned(), options)].into_iter().collect();
        let address = format!("http://127.0.0.1:{port}");
        let client = eventually("a WebDriver session", PATIENCE, async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            Ok(Some(builder.capabilities(capabilities.clone()).connect(&address).await?))
        })
        .await?;
        Ok(Self { client, driver })
    }

    /// Waits for an element to be there.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn find(&self, testid: &str) -> Result<Element> {
        let css = format!("[data-testid=\"{testid}\"]");
        eventually(&format!("an element {testid:?}"), PATIENCE, async || {
            Ok(Some(self.client.find(Locator::Css(&css)).await?))
        })
        .await
    }

    /// True when an element is there now.
    ///
    /// # Errors
    /// When the window does not answer.
    pub async fn has(&self, testid: &str) -> Result<bool> {
        let css = format!("[data-testid=\"{testid}\"]");
        Ok(!self.client.find_all(Locator::Css(&css)).await?.is_empty())
    }

    /// Clicks on an element, as a mouse does.
    ///
    /// # Errors
    /// When it is not there or cannot be clicked.
    pub async fn click(&self, testid: &str) -> Result<()> {
        self.find(testid).await?.click().await.with_context(|| format!("click on {testid:?}"))
    }

    /// Types into an element.
    ///
    /// # Errors
    /// When it is not there or takes no keys.
    pub async fn type_into(&self, testid: &str, keys: &str) -> Result<()> {
        self.find(testid).await?.send_keys(keys).await.with_context(|| format!("type into {testid:?}"))
    }

    /// The text of an element.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn text(&self, testid: &str) -> Result<String> {
        Ok(self.find(testid).await?.text().await?)
    }

    /// An attribute of an element.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn attribute(&self, testid: &str, name: &str) -> Result<Option<String>> {
        Ok(self.find(testid).await?.attr(name).await?)
    }

    /// Waits for the state shown (its name in the contract), and fails as soon as the window shows "failed" instead.
    ///
    /// # Errors
    /// When it does not come: with what the window shows.
    pub async fn wait_for_state(&self, state: &str) -> Result<()> {
        let shown = eventually(&format!("the state {state:?} in the window"), PATIENCE, async || {
            let now = self.attribute("state", "data-state").await?.unwrap_or_default();
            Ok((now == state || now == "failed").then_some(now))
        })
        .await;
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => return Err(error.context(self.words().await)),
        };
        ensure!(shown == state, "the window shows {shown:?}: {}", self.words().await);
        Ok(())
    }

    /// All text in the window, for messages.
    pub async fn words(&self) -> String {
        match self.client.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default().replace('\n', " | "),
            Err(error) => error.to_string(),
        }
    }

    /// Runs a script in the page and gives what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub async fn script(&self, script: &str) -> Result<serde_json::Value> {
        Ok(self.client.execute(script, Vec::new()).await?)
    }

    /// Makes the window this large.
    ///
    /// # Errors
    /// When the window does not answer.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        Ok(self.client.set_window_size(width, height).await?)
    }

    /// Takes a picture of the screen with what the window has painted by now.
    ///
    /// # Errors
    /// When there is no picture.
    pub async fn screenshot(&self, desktop: &Desktop, name: &str) -> Result<()> {
        // Two frames on, what is there now has been painted. The driver's own first picture may be stale: it is thrown away.
        let painted =
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));";
        self.client.execute_async(painted, Vec::new()).await?;
        self.client.screenshot().await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        desktop.screenshot(name)?;
        Ok(())
    }

    /// What the program has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.driver.log()
    }

    /// Ends the program.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub async fn close(mut self) -> Result<()> {
        self.client.clone().close().await?;
        self.driver.terminate_group(PATIENCE)?;
        Ok(())
    }
}
