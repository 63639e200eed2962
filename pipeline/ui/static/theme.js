// Before anything is painted: the look somebody chose on this machine.
"use strict";
const chosen = localStorage.getItem("headwater-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
