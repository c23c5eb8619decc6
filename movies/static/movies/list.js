// Search and sort without loading a new page. The API returns the IDs of the movies, and their cards
// are already on the page or come with the full list. Without this script the form works as usual.

const DEBOUNCE = 250; // milliseconds, so that a request is sent per word instead of per key
const AGE_INTERVAL = 10_000; // milliseconds

const form = document.querySelector("form");
const list = document.querySelector("#movies");
const count = document.querySelector("#count");
const noMatches = document.querySelector("#no-matches");
const pages = document.querySelector("#pages");

let total = list.dataset.total;
let cards = cardsOf(list);
let controller = new AbortController();
let timer;

function cardsOf(container) {
  return new Map(Array.from(container.children, (card) => [card.dataset.id, card]));
}

function formQuery() {
  const filled = Array.from(new FormData(form)).filter(([, value]) => value.trim());
  return new URLSearchParams(filled);
}

function listUrl(query) {
  return query.size ? `?${query}` : location.pathname;
}

async function fetchList(query, accept, signal) {
  const response = await fetch(listUrl(query), { headers: { Accept: accept }, signal });
  if (!response.ok) {
    throw new ErrorResponse(await describe(response));
  }
  return response;
}

class ErrorResponse extends Error {}

async function describe(response) {
  const isProblem = response.headers.get("Content-Type") === "application/problem+json";
  return isProblem ? (await response.json()).detail : `Status ${response.status}.`;
}

/** Load the cards of all movies and the time of the data. Open lists of people stay open. */
async function reloadCards(signal) {
  const response = await fetchList(new URLSearchParams(), "text/html", signal);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const newList = page.querySelector("#movies");
  const opened = new Set([...cards].filter(([, card]) => card.querySelector("[open]")).map(([id]) => id));
  total = newList.dataset.total;
  cards = cardsOf(document.adoptNode(newList));
  for (const [id, card] of cards) {
    card.querySelector("details")?.toggleAttribute("open", opened.has(id));
  }
  document.querySelector("#freshness").replaceWith(document.adoptNode(page.querySelector("#freshness")));
  showAge();
}

async function update() {
  clearTimeout(timer);
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  const query = formQuery();
  list.ariaBusy = "true";
  try {
    const response = await fetchList(new URLSearchParams([...query, ["fields", "id"]]), "application/json", signal);
    const { api_data: movies, timestamp } = await response.json();
    const current = document.querySelector("#freshness").dataset;
    const isStale = response.headers.get("Cache-Control") === "no-cache";
    const isKnown = movies.every(({ id }) => cards.has(id));
    if (!isKnown || timestamp !== current.timestamp || isStale !== "stale" in current) {
      await reloadCards(signal);
    }
    signal.throwIfAborted();
    show(movies.flatMap(({ id }) => cards.get(id) ?? []));
    updateUrls(query);
  } catch (error) {
    if (signal.aborted) {
      return;
    }
    const reason = error instanceof ErrorResponse ? error.message : "Totoro is unreachable.";
    count.textContent = `The list was not updated. ${reason}`;
  }
  list.ariaBusy = "false";
}

function show(matches) {
  list.replaceChildren(...matches);
  noMatches.hidden = matches.length > 0;
  pages?.remove();
  const movies = total === "1" ? "movie" : "movies";
  const part = String(matches.length) === total ? "" : `${matches.length} of `;
  const { value, label } = form.ordering.selectedOptions[0];
  const order = value && value !== label ? `, ${label[0].toLowerCase()}${label.slice(1)}` : "";
  count.textContent = `${part}${total} ${movies}${order}`;
}

/** Put the query into the page's URL, to be shared, and into the links that remove a filter. */
function updateUrls(query) {
  history.replaceState(null, "", listUrl(query));
  for (const link of document.querySelectorAll(".filters a")) {
    const others = new URLSearchParams(query);
    others.delete(link.dataset.name);
    link.href = others.size ? `?${others}` : "./";
  }
}

function showAge() {
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

showAge();
setInterval(showAge, AGE_INTERVAL);
