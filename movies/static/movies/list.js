// Search and order as one types: the API says which movies, in which order; their cards are already
// on the page, or come with the page of all. Without this script the form does the same by itself.

const DEBOUNCE = 250; // milliseconds: what one pauses at the end of a word
const AGE_STEP = 10_000; // milliseconds

const form = document.querySelector("form");
const list = document.querySelector("#movies");
const count = document.querySelector("#count");
const nothing = document.querySelector("#nothing");
const pages = document.querySelector("#pages");

let total = list.dataset.total;
let cards = cardsOf(list);
let asked = new AbortController();
let timer;

function cardsOf(container) {
  return new Map(Array.from(container.children, (card) => [card.dataset.id, card]));
}

function question() {
  const given = Array.from(new FormData(form)).filter(([, value]) => value.trim());
  return new URLSearchParams(given);
}

async function ask(query, accept, signal) {
  const address = query.size ? `?${query}` : location.pathname;
  const response = await fetch(address, { headers: { Accept: accept }, signal });
  if (!response.ok) {
    throw new Refusal(await reason(response));
  }
  return response;
}

class Refusal extends Error {}

async function reason(response) {
  const isProblem = response.headers.get("Content-Type") === "application/problem+json";
  return isProblem ? (await response.json()).detail : `Status ${response.status}.`;
}

/** The page of all movies: their cards, and how old the data is. What is open stays open. */
async function restock(signal) {
  const response = await ask(new URLSearchParams(), "text/html", signal);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector("#movies");
  const opened = new Set([...cards].filter(([, card]) => card.querySelector("[open]")).map(([id]) => id));
  total = fresh.dataset.total;
  cards = cardsOf(document.adoptNode(fresh));
  for (const [id, card] of cards) {
    card.querySelector("details")?.toggleAttribute("open", opened.has(id));
  }
  document.querySelector("#freshness").replaceWith(document.adoptNode(page.querySelector("#freshness")));
  tellAge();
}

async function update() {
  clearTimeout(timer);
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const query = question();
  list.ariaBusy = "true";
  try {
    const response = await ask(new URLSearchParams([...query, ["fields", "id"]]), "application/json", signal);
    const { api_data: movies, timestamp } = await response.json();
    const shown = document.querySelector("#freshness").dataset;
    const isStale = response.headers.get("Cache-Control") === "no-cache";
    const isKnown = movies.every(({ id }) => cards.has(id));
    if (!isKnown || timestamp !== shown.timestamp || isStale !== "stale" in shown) {
      await restock(signal);
    }
    signal.throwIfAborted();
    show(movies.flatMap(({ id }) => cards.get(id) ?? []));
    remember(query);
  } catch (error) {
    if (signal.aborted) {
      return;
    }
    const why = error instanceof Refusal ? error.message : "Totoro cannot be reached.";
    count.textContent = `The list is as it was. ${why}`;
  }
  list.ariaBusy = "false";
}

function show(found) {
  list.replaceChildren(...found);
  nothing.hidden = found.length > 0;
  pages?.remove();
  const movies = total === "1" ? "movie" : "movies";
  const told = String(found.length) === total ? `${total} ${movies}` : `${found.length} of ${total} ${movies}`;
  const { value, label } = form.ordering.selectedOptions[0];
  const order = value && value !== label ? `, ${label[0].toLowerCase()}${label.slice(1)}` : "";
  count.textContent = told + order;
}

/** In the address, to be shared, and in the links that take a filter away. */
function remember(query) {
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  for (const link of document.querySelectorAll(".filters a")) {
    const others = new URLSearchParams(query);
    others.delete(link.dataset.name);
    link.href = others.size ? `?${others}` : "./";
  }
}

function tellAge() {
  const time = document.querySelector("#freshness time");
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time.dateTime)) / 1000));
  const [size, unit] = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(
    ([size]) => seconds >= size || size === 1,
  );
  const age = new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(-Math.floor(seconds / size), unit);
  document.querySelector("#freshness .age").textContent = ` (${age})`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  update();
});
form.search.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(update, DEBOUNCE);
});
form.ordering.addEventListener("change", update);

tellAge();
setInterval(tellAge, AGE_STEP);
