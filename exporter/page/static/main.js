// The page is complete without this: scripts keep it current, and make searching and the keyboard quicker.

import * as history from "./history.js";
import * as keys from "./keys.js";
import * as live from "./live.js";
import * as search from "./search.js";

keys.start();
search.start();
live.start();
history.start();
