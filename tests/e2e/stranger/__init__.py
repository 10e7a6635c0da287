"""An outside party's client, written from the published contract alone: nothing of the product in it."""
