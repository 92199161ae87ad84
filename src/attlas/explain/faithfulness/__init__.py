"""How far an explanation can be trusted: measured by taking away what it marks, against chance and plain positions."""
