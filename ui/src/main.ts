import { mount } from "svelte";
import App from "./App.svelte";
import { settings } from "./lib/settings.svelte";
import "./styles.css";

settings.load();
const target = document.getElementById("app");
if (target !== null) mount(App, { target });
