// Homes and their rooms: what is shown to somebody who is logged in.

import { call } from "./api.js";
import { ask } from "./dialog.js";
import { byId, make, showProblem } from "./dom.js";
import { Live } from "./live.js";
import { RoomCard } from "./room.js";

// However often we are told to read again, this is how often it is done.
const RESYNC_MS = 3000;

let homes = [];
let current = null;
let cards = new Map();
let live = null;
let resyncTimer = 0;
let shown = 0;

const guard = (work) => work().catch((error) => showProblem(byId("problem"), error.message));

/** Show somebody's homes. */
export async function openHomes() {
  byId("homes").hidden = false;
  await loadHomes();
  live = new Live(happened, showLive);
}

/** Forget everything: nothing of one person may be left for the next. */
export function closeHomes() {
  live?.stop();
  clearTimeout(resyncTimer);
  live = current = null;
  homes = [];
  shown += 1;
  showRooms([]);
  byId("home-tabs").replaceChildren();
  byId("home").hidden = byId("homes").hidden = byId("live").hidden = true;
}

async function loadHomes() {
  homes = await call("GET", "/homes");
  await show(homes.find((home) => home.id === current?.id) ?? homes[0] ?? null);
}

async function show(home) {
  current = home;
  shown += 1;
  byId("home-tabs").replaceChildren(
    ...homes.map((each) =>
      make("button", { type: "button", role: "tab", "aria-selected": String(each === home), click: () => guard(() => show(each)) }, each.name),
    ),
  );
  byId("no-home").hidden = home !== null;
  byId("home").hidden = home === null;
  byId("home-name").textContent = home?.name ?? "";
  showProblem(byId("problem"), null);
  if (home) await loadRooms();
}

async function loadRooms() {
  const turn = shown;
  const rooms = await call("GET", `/homes/${current.id}/rooms`);
  // Another home may have been chosen meanwhile.
  if (turn !== shown) return;
  showRooms(rooms);
  await loadStates();
}

function showRooms(rooms) {
  cards = new Map(rooms.map((room) => [room.id, cards.get(room.id)?.room.name === room.name ? cards.get(room.id) : makeCard(room)]));
  byId("rooms").replaceChildren(...[...cards.values()].map((card) => card.element));
  byId("no-room").hidden = rooms.length > 0;
}

function makeCard(room) {
  return new RoomCard(room, { onRename: () => renameRoom(room), onDelete: () => deleteRoom(room) });
}

async function loadStates() {
  if (!current || !cards.size) return;
  const turn = shown;
  try {
    const states = await call("GET", `/homes/${current.id}/latest`);
    if (turn === shown) for (const state of states) cards.get(state.room_id)?.update(state);
  } catch (error) {
    if (turn === shown) for (const card of cards.values()) card.fail(error.message);
  }
}

function happened(event) {
  if (event.type === "rooms") guard(loadHomes);
  else if (event.type === "ready" || event.type === "resync" || event.type === "gap") resync();
  else cards.get(event.room_id)?.happened(event);
}

// Something may have been missed: read what is shown again, once for many reasons.
function resync() {
  if (resyncTimer) return;
  resyncTimer = setTimeout(() => (resyncTimer = 0), RESYNC_MS);
  guard(async () => {
    await loadStates();
    for (const card of cards.values()) card.loadHistory();
  });
}

function showLive(on) {
  const element = byId("live");
  element.hidden = false;
  element.textContent = on ? "Live" : "Connecting…";
  element.classList.toggle("on", on);
}

function addHome() {
  ask({
    title: "Add a home",
    fields: [{ name: "name", label: "Name" }],
    ok: "Add",
    run: async ({ name }) => {
      current = await call("POST", "/homes", { name });
      await loadHomes();
    },
  });
}

byId("add-home").addEventListener("click", addHome);
document.querySelector('[data-open="home"]').addEventListener("click", addHome);

byId("rename-home").addEventListener("click", () => {
  const home = current;
  ask({
    title: "Rename home",
    fields: [{ name: "name", label: "Name", value: home.name }],
    ok: "Rename",
    run: async ({ name }) => {
      await call("PATCH", `/homes/${home.id}`, { name });
      await loadHomes();
    },
  });
});

byId("delete-home").addEventListener("click", () => {
  const home = current;
  ask({
    title: `Delete ${home.name}?`,
    text: "Its rooms go with it. Their devices can be claimed again.",
    ok: "Delete",
    danger: true,
    run: async () => {
      await call("DELETE", `/homes/${home.id}`);
      await loadHomes();
    },
  });
});

byId("add-room").addEventListener("click", () => {
  const home = current;
  ask({
    title: "Add a room",
    text: "The name of the device and its claim code are on its label.",
    fields: [
      { name: "name", label: "Name of the room" },
      { name: "device", label: "Device" },
      { name: "claim_code", label: "Claim code" },
    ],
    ok: "Add",
    run: async (fields) => {
      await call("POST", `/homes/${home.id}/rooms`, fields);
      await loadRooms();
    },
  });
});

function renameRoom(room) {
  ask({
    title: "Rename room",
    fields: [{ name: "name", label: "Name", value: room.name }],
    ok: "Rename",
    run: async ({ name }) => {
      await call("PATCH", `/rooms/${room.id}`, { name });
      await loadRooms();
    },
  });
}

function deleteRoom(room) {
  ask({
    title: `Remove ${room.name}?`,
    text: "Its device can be claimed again. Whoever does so sees nothing of what it measured here.",
    ok: "Remove",
    danger: true,
    run: async () => {
      await call("DELETE", `/rooms/${room.id}`);
      await loadRooms();
    },
  });
}
