// The page of `doit serve`: pick a deployed model, open an image or a sequence, prompt, see the masks,
// save them. Each field of `Page` holds one part of the state; parts change each other through the page.

import { Contrast } from './interface/contrast.js'
import { Cursor } from './interface/cursor.js'
import { Decoding } from './interface/decoding.js'
import { Display } from './interface/display.js'
import { ui } from './interface/elements.js'
import { EverythingSearch } from './interface/everything-search.js'
import { listen } from './interface/inputs.js'
import { LookControls } from './interface/look-controls.js'
import { complain, words } from './interface/messages.js'
import { OpenImage } from './interface/open-image.js'
import { OpenModel } from './interface/open-model.js'
import { offerOpening } from './interface/opening.js'
import { PlaneControls } from './interface/plane-controls.js'
import { Prompting } from './interface/prompting.js'
import { offerSaves } from './interface/saving.js'
import { SequenceView } from './interface/sequence-view.js'
import { Work } from './interface/work.js'
import { ZoomedViews } from './interface/zoomed-views.js'

export class Page {
  look = new LookControls(() => this.display.scene.repaint())
  model = new OpenModel(this)
  image = new OpenImage(this)
  contrast = new Contrast(this)
  prompting = new Prompting(this)
  decoding = new Decoding(this)
  cursor = new Cursor(this)
  everything = new EverythingSearch(this)
  sequence = new SequenceView(this)
  planes = new PlaneControls(this)
  work = new Work(this)
  views = new ZoomedViews(this)
  display = new Display(this)

  /** Whether a search or tracking is running, so that prompts must wait. */
  get isBusy() {
    return this.everything.search !== null || this.sequence.stop !== null
  }

  get canPrompt() {
    return this.image.place !== null && !this.isBusy
  }

  cancel() {
    this.everything.search?.abort()
    this.sequence.stop?.abort()
  }

  async start() {
    listen(this)
    offerSaves(this)
    offerOpening(this)
    ui.cancel.onclick = () => this.cancel()
    this.display.enable()
    await this.model.start()
    await this.work.restore()
  }
}

new Page().start().catch((error) => complain('model', words(error)))
